"""Reports: tables on the console, a page, and the images that were scored."""
