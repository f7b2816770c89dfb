"""What every implementation of a port must do: the same tests on the fake and on the real thing."""
