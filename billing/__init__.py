"""What may be spent: accounts, reservations, costs and plans. Money knows no policy."""
