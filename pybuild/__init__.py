"""From the Go package gostorage/ to the CPython extension storage._gostorage."""
