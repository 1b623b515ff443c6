"""What things look like outside: as JSON for programs, and in words for people."""
