"""What people read: tables and the units in them."""
