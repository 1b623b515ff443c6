"""What a person may do, at the command line, in the console or by the API."""
