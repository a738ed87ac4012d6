"""The Trino engine: Trino carries the operations out; what it did is read back from the table's metadata."""
