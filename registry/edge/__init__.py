"""HTTP in: the lean handler, problem details, paging, pages, the OpenAPI document."""
