"""OData 4.0 as the feed offers it: parse requests, evaluate filters, build payloads. Pure."""
