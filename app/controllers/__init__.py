"""HTTP only: a route, its documentation, a few statements."""
