"""What only the book needs: claims and their evidence, the set-up of a chapter, figures, drawings, real data."""
