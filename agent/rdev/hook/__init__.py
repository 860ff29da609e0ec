"""What is planted in every Python process of a job; dormant until someone attaches."""
