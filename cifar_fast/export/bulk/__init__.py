"""Bulk prediction: any number of images to one table, in processes, in shards that are whole or not there."""
