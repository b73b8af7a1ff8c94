"""Graph to graph: pure functions, valid in, valid out."""
