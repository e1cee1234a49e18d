"""What runs inside the sandbox, beside student code; it knows no test and no expected value."""
