"""Setting `tabular`: a model over records with named attributes is exposed; sensitive attributes of people are inferred."""
