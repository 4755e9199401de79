"""How a service bears many visitors: what it refuses, how long they wait, what memory it takes."""
