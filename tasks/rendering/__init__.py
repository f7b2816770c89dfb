"""What people see: Rich tables on a terminal, plain lines in a pipe. Imports the model only."""
