"""Attribute maps run backwards: from changed columns to the elements of a resource."""
