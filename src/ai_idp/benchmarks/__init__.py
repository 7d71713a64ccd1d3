"""Week 1 on the controller: claims, findings and the report drawn from them."""
