"""For any WSGI server: `gunicorn wsgi:app`. `tokenserver serve` needs no file of its own."""

from tokenserver.app import create_worker

app = create_worker()
