"""Reading past the page cache: what is to be read soon comes from the device into memory of our own."""
