"""Convert an organisation's maps of Microsoft's Data integration toolkit to maps of the relay.

rows        the toolkit's tables as values; `client` and `load` read them
json_path   parse the toolkit's JSONPath; `elements` knows FHIR's types; `translate` makes FHIRPath
attributes  convert one attribute map; `blocks` all of a table, `expansions` those of children
convert     convert everything
findings    what became of each map; `toml` renders the files
"""
