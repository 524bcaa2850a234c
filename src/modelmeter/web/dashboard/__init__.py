"""The dashboard: `/` and everything under /ui/. Server-rendered pages, small ES modules, nothing from elsewhere."""
