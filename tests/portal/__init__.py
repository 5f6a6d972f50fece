"""A small upload portal: the demo, and a real project for the tests to run."""
