"""homeloop: every asyncio object has a home loop; bring the code to the loop, never the loop to the code."""
