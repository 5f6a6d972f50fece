"""The site of `make portal`: a page on which people upload files, by storage.tus."""
