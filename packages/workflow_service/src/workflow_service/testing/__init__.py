"""Local servers in the formats of the providers the service talks to: for its tests, demonstrations and yours."""
