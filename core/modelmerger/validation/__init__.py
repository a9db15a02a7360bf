"""Whether the merged model still speaks."""
