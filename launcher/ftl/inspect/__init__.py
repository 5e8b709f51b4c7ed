"""What `ftl check` and `ftl preview` find out on a laptop: every row of the data as the model will see it."""
