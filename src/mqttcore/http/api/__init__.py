"""The management API, `/api/v1`: one module per noun, with the types of its requests and answers."""
