"""From a row back into the resource that it shows: which element, which value. Pure."""
