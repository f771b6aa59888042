"""What people see: one module and one template for each page. Plain forms, no outside request, a strict policy."""
