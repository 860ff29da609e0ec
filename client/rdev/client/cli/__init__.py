"""The command line: each verb parses and renders, the SDK does the work."""
