"""From a scheduled program to a C project."""
