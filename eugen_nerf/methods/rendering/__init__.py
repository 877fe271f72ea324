"""What makes rendering faster for any network alike: inference plans and approximations."""
