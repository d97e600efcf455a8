"""Pictures: files, shards, parquet, arrays and generated ones."""
