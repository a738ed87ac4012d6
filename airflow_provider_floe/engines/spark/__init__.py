"""The Spark engine: Iceberg's procedures, run by spark-submit or over Spark Connect."""
