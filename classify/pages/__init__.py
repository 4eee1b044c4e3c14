"""The report page, and the tables that the command line prints."""
