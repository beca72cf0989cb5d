typedef int placeholder_ref_score;
