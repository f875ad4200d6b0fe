"""How the catalog is read and the site is made: catalog model, page generator, MkDocs hook, notebook runner, scaffold."""
