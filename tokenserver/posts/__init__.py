"""Posts: the sample of a protected resource, written as any other service would write its own."""
