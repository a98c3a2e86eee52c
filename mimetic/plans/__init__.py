"""From rules and sites to a plan that can be read, compared, hashed and applied."""
