"""The checks of `manage.py doctor`: what must hold on a site and no test can know."""
