"""What Iceberg's metadata and storage say: manifests, live files, reachability, listings, paths. Reads only."""
