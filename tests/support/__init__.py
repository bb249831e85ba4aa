"""What scenario tests share: a replica to run, a mesh to run it, and a load with a count."""
