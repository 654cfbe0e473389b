"""The process that reads one document: bytes on standard input, its text as JSON on standard output.

`DocumentParser` in `gateways.document_parser` starts it and ends it. It imports a format's library only when a
document has that format: the time until the first byte is read is paid for every document.
"""
