"""The steps of a migration: one file a step, each with ``run``; rollback undoes what the journal records."""
