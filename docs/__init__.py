"""Documentation; the pages that come from code are written by ``generate``."""
