"""The site: pages made from catalog, results and modules by pure functions, handed to MkDocs by a thin hook."""
