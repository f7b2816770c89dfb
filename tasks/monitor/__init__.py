"""What operators watch: Flower, told how to show migrations, with a page of its own for what tasks cannot show."""
