"""Activities: the steps of workflows, one file a family; `interfaces` is what workflows know of them."""
