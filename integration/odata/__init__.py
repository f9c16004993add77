"""OData 4.0 as the feed speaks it: what is asked, what it means on rows, how it is answered."""
